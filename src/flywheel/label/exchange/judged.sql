-- The judgements in force: the latest of each rater on each question, none withdrawn or failed.
SELECT assessments.*
FROM assessments
SEMI JOIN judgements USING (workload, assessment_id)
WHERE workload = $1
    AND ($2::VARCHAR IS NULL OR name = $2)
    AND source_type IN (SELECT unnest($3::VARCHAR[]))
ORDER BY coalesce(interaction_id, pair_ids ->> 0), pair_ids ->> 1, name, created_at, assessment_id
