-- Who judged which interaction of workload $1 on question $2, judgements in force only.
SELECT DISTINCT interaction_id, source_type, coalesce(source_id, '(unnamed)') AS source_id
FROM assessments
WHERE workload = $1
    AND name = $2
    AND status = 'submitted'
    AND interaction_id IS NOT NULL
    AND assessment_id NOT IN (SELECT supersedes FROM assessments WHERE supersedes IS NOT NULL)
