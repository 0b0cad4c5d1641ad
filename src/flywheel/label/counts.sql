-- Judgements of workload $1 by question, source, rater and day: how many were made, how many are
-- still in force, how many failed.
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
    count(*) FILTER (status = 'submitted' AND withdrawn.assessment_id IS NULL) AS in_force,
    count(*) FILTER (status = 'error') AS failed,
    count(correction) AS corrections,
    avg(value) AS mean_value
FROM assessments
LEFT JOIN withdrawn USING (assessment_id)
WHERE workload = $1 AND status <> 'discarded'
GROUP BY ALL
ORDER BY name, source_type, source_id, day
