-- Answers nobody has judged under this question yet; with a rater, that this rater has not. In the
-- order of a hash, so that the first so many are a random sample, and the same one each time.
SELECT interaction_id
FROM interactions
WHERE workload = $1
    AND response IS NOT NULL
    AND status = 'ok'
    AND interaction_id NOT IN (
        SELECT interaction_id
        FROM assessments
        WHERE workload = $1
            AND name = $2
            AND source_type = 'human'
            AND interaction_id IS NOT NULL
            AND ($3::VARCHAR IS NULL OR source_id = $3)
    )
ORDER BY sha256(interaction_id || $2), interaction_id
LIMIT $4
