-- What the requests since $2 to workload $1 came to, by model name asked for.
SELECT
    alias,
    count(*) AS requests,
    sum(calls)::BIGINT AS calls,
    count(*) FILTER (WHERE is_escalated) AS escalated,
    count(*) FILTER (WHERE repairs > 0) AS repaired,
    count(*) FILTER (WHERE is_plan_b) AS plan_b,
    count(*) FILTER (WHERE status = 'error') AS failed,
    sum(cost_usd) AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL) AS cost_unknown,
    count(*) FILTER (WHERE input_tokens IS NULL OR output_tokens IS NULL) AS tokens_unknown,
    coalesce(sum(input_tokens), 0)::BIGINT AS input_tokens,
    coalesce(sum(cached_input_tokens), 0)::BIGINT AS cached_input_tokens,
    coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens
FROM route_requests
WHERE workload = $1 AND started_at >= $2
GROUP BY alias
ORDER BY alias
