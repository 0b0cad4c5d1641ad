-- How many judgements of judge $2 stand, by its version (its hash), the one that judged last first.
SELECT judge_prompt_hash AS version, count(*) AS judgements
FROM submissions
WHERE workload = $1 AND name = $2 AND source_type = 'llm_judge'
GROUP BY judge_prompt_hash
ORDER BY max((created_at, assessment_id)) DESC
