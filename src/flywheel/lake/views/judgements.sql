-- The judgements that count: one row for each rater of each tier who answered a question.
--
-- A question is (workload, item, name). Of submissions.sql, those of language models only where the
-- judge was qualified when it judged. A rater's latest judgement of a question replaces the earlier
-- ones; judgements without source_id are one unnamed rater.
SELECT * EXCLUDE (is_qualified)
FROM submissions
WHERE is_qualified
QUALIFY row_number() OVER (
    PARTITION BY workload, item, name, tier, coalesce(source_id, '')
    ORDER BY created_at DESC, assessment_id DESC
) = 1
