-- One row a request an application made: a request whose answer was repaired or escalated is several
-- interactions (tags.chain), and one row here. `answered_by` is the model whose answer was sent.
SELECT
    workload,
    request_model AS alias,
    coalesce(tags ->> '$.chain.id', interaction_id) AS request_id,
    min(started_at) AS started_at,
    count(*) AS calls,
    count(*) FILTER (WHERE tags ->> '$.chain.role' = 'repair') AS repairs,
    bool_or(coalesce(tags ->> '$.chain.role' = 'escalation', false)) AS is_escalated,
    bool_or(arm = 'fallback') AS is_plan_b,
    any_value(response_model) FILTER (WHERE coalesce((tags ->> '$.chain.sent') = 'true', true)) AS answered_by,
    any_value(status) FILTER (WHERE coalesce((tags ->> '$.chain.sent') = 'true', true)) AS status,
    -- The sum is known only where every part is.
    CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END AS cost_usd,
    any_value(input_tokens) FILTER (WHERE coalesce(tags ->> '$.chain.role' = 'first', true)) AS input_tokens,
    any_value(cached_input_tokens) FILTER (WHERE coalesce(tags ->> '$.chain.role' = 'first', true)) AS cached_input_tokens,
    any_value(output_tokens) FILTER (WHERE coalesce(tags ->> '$.chain.role' = 'first', true)) AS output_tokens
FROM interactions
WHERE source = 'gateway'
GROUP BY ALL
