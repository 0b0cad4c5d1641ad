-- Of run $2 of workload $1: how many judgements by the name $3 there are, one for each model of the
-- panel, and how many of them have no verdict, only errors.
WITH outcomes AS (
    SELECT
        coalesce(interaction_id, pair_ids) AS item,
        source_id,
        bool_or(status = 'submitted') AS is_judged
    FROM assessments
    WHERE workload = $1 AND judge_run_id = $2 AND name = $3
    GROUP BY ALL
)
SELECT count(*)::BIGINT AS tasks, count(*) FILTER (WHERE NOT is_judged)::BIGINT AS errors
FROM outcomes
