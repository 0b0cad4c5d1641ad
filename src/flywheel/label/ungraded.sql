-- The next page of answered interactions of workload $1 without a grade by grader $2 at version $3,
-- after interaction $4, at most $5 of them.
SELECT interactions.*
FROM interactions
ANTI JOIN (
    SELECT interaction_id
    FROM assessments
    WHERE workload = $1 AND source_type = 'code' AND name = $2 AND rubric = $3
) AS graded USING (interaction_id)
WHERE workload = $1
    AND status IN ('ok', 'truncated')
    AND response IS NOT NULL
    AND interaction_id > $4
ORDER BY interaction_id
LIMIT $5
