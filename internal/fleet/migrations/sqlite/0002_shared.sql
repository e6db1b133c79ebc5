-- Machines two boots, or names, of which were seen in turns at any time: only they can share an identity in the time of a question.
CREATE TABLE shared (
	machine text PRIMARY KEY
);

INSERT INTO shared (machine)
WITH named AS (
	SELECT machine, CASE WHEN name = '' THEN max(name) OVER (PARTITION BY machine, boot) ELSE name END AS name, boot, seen_first, seen_last
	FROM boot
), span AS (
	SELECT machine, min(seen_first) AS seen_first, max(seen_last) AS seen_last FROM named GROUP BY machine, boot, name
)
SELECT DISTINCT machine FROM (SELECT machine, seen_first, max(seen_last) OVER
	(PARTITION BY machine ORDER BY seen_first, seen_last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM span) b
WHERE seen_first < before;

-- Indirect branches that a packet runs through at most, in bulks of 16; null where no redirect path was read, and in records that
-- came in before there was this column.
ALTER TABLE record ADD COLUMN branches_16 real;
ALTER TABLE latest ADD COLUMN branches_16 real;
