-- The snapshots of workload $1 a night finished with: an adapter learned from it, the gate decided,
-- and what passed was promoted. A night that failed before its end leaves its snapshot unconsumed,
-- so that running it again goes on where it stopped.
SELECT DISTINCT adapters.snapshot_id
FROM adapters
JOIN decisions ON decisions.candidate = adapters.name AND decisions.workload = adapters.workload
LEFT JOIN releases
    ON releases.decision_id = decisions.decision_id AND releases.workload = decisions.workload
WHERE adapters.workload = $1
    AND adapters.snapshot_id IS NOT NULL
    AND (decisions.verdict <> 'PASS' OR releases.decision_id IS NOT NULL)
