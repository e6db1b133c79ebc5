-- The records of a fleet. Times are in seconds since 1970 (UTC): datetime(at, 'unixepoch').

-- What a machine is, each combination once. id is computed from the other columns. What could not be seen is empty.
CREATE TABLE setup (
	id integer PRIMARY KEY,
	kernel text NOT NULL,
	kernel_build text NOT NULL,
	cpu text NOT NULL,
	microcode text NOT NULL,
	hypervisor text NOT NULL,
	indirect_thunk text NOT NULL,
	return_thunk text NOT NULL,
	call_sites text NOT NULL,
	compiler text NOT NULL,
	boot_params text NOT NULL,
	mitigations text NOT NULL,
	iommu text NOT NULL,
	driver text NOT NULL,
	xdp_program text NOT NULL,
	jit text NOT NULL,
	smt text NOT NULL,
	governor text NOT NULL,
	call_rows text NOT NULL, -- names of the prices record.call_1 and so on, with commas between them
	labels text NOT NULL -- those that the operator gave the machine
);

-- One row a run of the agent.
CREATE TABLE record (
	run text PRIMARY KEY,
	machine text NOT NULL,
	name text NOT NULL, -- host name; empty where it is left out
	boot text NOT NULL,
	at integer NOT NULL,
	kind text NOT NULL,
	ingested integer NOT NULL,
	setup integer NOT NULL, -- setup.id
	clock integer NOT NULL, -- 1: at was more than a day ahead when the record came in; -1: before there was unthunk
	measured integer NOT NULL, -- 1 when it has a number
	refused text NOT NULL, -- the agent's reason when it did not measure
	-- Medians in ns; null where there is none. call_1 and so on are prices of an indirect call, which setup.call_rows names.
	control real,
	direct_call real,
	call_1 real,
	call_2 real,
	call_3 real,
	redirect_1 real,
	redirect_16 real,
	redirect_64 real,
	doc text NOT NULL -- the whole record
);

CREATE INDEX record_at ON record (at, machine, setup, clock);
CREATE INDEX record_machine ON record (machine, at);
CREATE INDEX record_clock ON record (clock) WHERE clock <> 0;

-- The newest record of a machine in each of its setups, so that a question reads no others.
CREATE TABLE latest (
	machine text NOT NULL,
	setup integer NOT NULL,
	run text NOT NULL,
	name text NOT NULL,
	at integer NOT NULL,
	refused text NOT NULL,
	control real,
	direct_call real,
	call_1 real,
	call_2 real,
	call_3 real,
	redirect_1 real,
	redirect_16 real,
	redirect_64 real,
	PRIMARY KEY (machine, setup)
);

-- From when to when a boot of a machine was seen. Two of one machine that overlap are two machines with one identity.
CREATE TABLE boot (
	machine text NOT NULL,
	boot text NOT NULL,
	name text NOT NULL,
	seen_first integer NOT NULL,
	seen_last integer NOT NULL,
	PRIMARY KEY (machine, boot, name)
);
