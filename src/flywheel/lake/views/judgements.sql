-- The judgements that count: one row for each rater of each tier who answered a question.
--
-- A question is (workload, item, name). Of submissions.sql, those of language models only where the
-- judge was qualified when it judged. Two versions of one judge (another hash, perhaps other models)
-- are not two raters: of the rows of a judge `judge:<judge>/<model>` on a question, only those of the
-- hash it answered with last count. A rater's latest judgement of a question replaces the earlier
-- ones; judgements without source_id are one unnamed rater.
WITH qualified AS (
    SELECT * EXCLUDE (is_qualified)
    FROM submissions
    WHERE is_qualified
    QUALIFY source_type <> 'llm_judge' OR judge_prompt_hash = first_value(judge_prompt_hash) OVER (
        PARTITION BY
            workload, item, name, tier,
            coalesce(nullif(regexp_extract(source_id, '^judge:[^/]+/'), ''), source_id, '')
        ORDER BY created_at DESC, assessment_id DESC
    )
)
SELECT *
FROM qualified
QUALIFY row_number() OVER (
    PARTITION BY workload, item, name, tier, coalesce(source_id, '')
    ORDER BY created_at DESC, assessment_id DESC
) = 1
