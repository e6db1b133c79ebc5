-- The records of a fleet. Times are in seconds since 1970 (UTC): to_timestamp(at).

-- What a machine is, each combination once. id is computed from the other columns. What could not be seen is empty.
CREATE TABLE setup (
	id bigint PRIMARY KEY,
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
	labels jsonb NOT NULL -- those that the operator gave the machine
);

-- One row a run of the agent.
CREATE TABLE record (
	run text COLLATE "C" PRIMARY KEY,
	machine text COLLATE "C" NOT NULL,
	name text NOT NULL, -- host name; empty where it is left out
	boot text NOT NULL,
	at bigint NOT NULL,
	kind text NOT NULL,
	ingested bigint NOT NULL,
	setup bigint NOT NULL, -- setup.id
	clock smallint NOT NULL, -- 1: at was more than a day ahead when the record came in; -1: before there was unthunk
	measured smallint NOT NULL, -- 1 when it has a number
	refused text NOT NULL, -- the agent's reason when it did not measure
	-- Medians in ns; null where there is none. call_1 and so on are prices of an indirect call, which setup.call_rows names.
	control double precision,
	direct_call double precision,
	call_1 double precision,
	call_2 double precision,
	call_3 double precision,
	redirect_1 double precision,
	redirect_16 double precision,
	redirect_64 double precision,
	doc jsonb NOT NULL -- the whole record
) WITH (toast_tuple_target = 128);

CREATE INDEX record_at ON record (at, machine, setup, clock);
CREATE INDEX record_machine ON record (machine, at);
CREATE INDEX record_clock ON record (clock) WHERE clock <> 0;

-- The newest record of a machine in each of its setups, so that a question reads no others.
CREATE TABLE latest (
	machine text COLLATE "C" NOT NULL,
	setup bigint NOT NULL,
	run text NOT NULL,
	name text NOT NULL,
	at bigint NOT NULL,
	refused text NOT NULL,
	control double precision,
	direct_call double precision,
	call_1 double precision,
	call_2 double precision,
	call_3 double precision,
	redirect_1 double precision,
	redirect_16 double precision,
	redirect_64 double precision,
	PRIMARY KEY (machine, setup)
);

-- From when to when a boot of a machine was seen. Two of one machine that overlap are two machines with one identity.
CREATE TABLE boot (
	machine text COLLATE "C" NOT NULL,
	boot text NOT NULL,
	name text NOT NULL,
	seen_first bigint NOT NULL,
	seen_last bigint NOT NULL,
	PRIMARY KEY (machine, boot, name)
);

-- Documents are kept apart from the rows that questions read, and packed fast where the server can.
DO $$ BEGIN
	ALTER TABLE record ALTER COLUMN doc SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR syntax_error THEN
	NULL;
END $$;
