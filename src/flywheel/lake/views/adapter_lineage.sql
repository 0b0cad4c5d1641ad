-- Each adapter with where it came from and what became of it: its ancestors from the root on, the
-- dataset it learned from, the gate's latest word on it, and the releases that served it.
WITH RECURSIVE ancestry AS (
    SELECT workload, adapter_id, parent, 0 AS generation, [name] AS lineage
    FROM adapters
    WHERE parent IS NULL
    UNION ALL
    SELECT
        child.workload, child.adapter_id, child.parent, generation + 1,
        list_append(lineage, child.name)
    FROM adapters AS child
    JOIN ancestry
        ON child.workload = ancestry.workload AND child.parent = ancestry.adapter_id
),
last_decision AS (
    SELECT workload, candidate AS name, decision_id, verdict, created_at AS decided_at
    FROM decisions
    QUALIFY row_number() OVER (
        PARTITION BY workload, candidate ORDER BY created_at DESC, decision_id DESC
    ) = 1
),
served AS (
    SELECT
        workload, model AS name,
        min(created_at) AS first_released_at,
        list(epoch ORDER BY epoch) AS epochs
    FROM releases
    GROUP BY workload, model
),
serving AS (
    SELECT workload, arg_max(model, epoch) AS name, true AS is_serving
    FROM releases
    GROUP BY workload
)
SELECT
    adapters.workload,
    adapters.name,
    adapters.adapter_id,
    adapters.created_at,
    adapters.base_model,
    adapters.parent,
    ancestry.generation,
    ancestry.lineage,
    adapters.snapshot_id,
    snapshots.labels,
    snapshots.new_labels,
    adapters.rank,
    adapters.size_bytes,
    adapters.run_id,
    last_decision.decision_id,
    last_decision.verdict,
    last_decision.decided_at,
    served.first_released_at,
    served.epochs,
    coalesce(serving.is_serving, false) AS is_serving
FROM adapters
LEFT JOIN ancestry USING (workload, adapter_id)
LEFT JOIN snapshots USING (workload, snapshot_id)
LEFT JOIN last_decision USING (workload, name)
LEFT JOIN served USING (workload, name)
LEFT JOIN serving USING (workload, name)
