-- What each day cost, in calls, tokens and money: answering (by the model that answered) and judging
-- (by the judge). Sums are NULL, not 0, where nobody reported the number.
SELECT
    workload,
    event_date,
    'answering' AS activity,
    coalesce(response_model, request_model) AS model,
    count(*) AS calls,
    count(*) FILTER (WHERE status = 'error') AS errors,
    sum(input_tokens)::BIGINT AS input_tokens,
    sum(output_tokens)::BIGINT AS output_tokens,
    sum(cost_usd) AS cost_usd
FROM interactions
GROUP BY ALL
UNION ALL
SELECT
    workload,
    event_date,
    'judging' AS activity,
    coalesce(judge_model, source_id) AS model,
    count(*) FILTER (WHERE is_call) AS calls,
    count(*) FILTER (WHERE is_call AND status = 'error') AS errors,
    sum(input_tokens)::BIGINT AS input_tokens,
    sum(output_tokens)::BIGINT AS output_tokens,
    sum(cost_usd) AS cost_usd
FROM (
    -- A row made of others' calls (a criterion, both orders of a pair) is no call of its own.
    SELECT *, coalesce(covariates ->> '$.derived', 'false') <> 'true' AS is_call
    FROM assessments
)
WHERE source_type = 'llm_judge'
GROUP BY ALL
