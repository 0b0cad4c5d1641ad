-- Judgements of workload $1 by question, source, rater and day: how many were made, how many are
-- still in force (those of a judge run that is not valid are not), how many failed.
WITH withdrawn AS (
    SELECT DISTINCT supersedes AS assessment_id
    FROM assessments
    WHERE workload = $1 AND supersedes IS NOT NULL
)
SELECT
    name,
    source_type,
    source_id,
    CAST(created_at AS DATE) AS day,
    count(*) AS judgements,
    count(*) FILTER (
        status = 'submitted' AND withdrawn.assessment_id IS NULL
        AND (
            judge_run_id IS NULL
            OR judge_run_id IN (SELECT judge_run_id FROM judge_runs WHERE state = 'valid')
        )
    ) AS in_force,
    count(*) FILTER (status = 'error') AS failed,
    count(correction) AS corrections,
    avg(value) AS mean_value
FROM assessments
LEFT JOIN withdrawn USING (assessment_id)
WHERE workload = $1 AND status <> 'discarded'
GROUP BY ALL
ORDER BY name, source_type, source_id, day
