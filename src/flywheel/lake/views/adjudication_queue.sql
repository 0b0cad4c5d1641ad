-- Questions on which experts differ and that no adjudication has settled: those without a majority
-- first. `opinions` is who said what; a later adjudication, or raters who come to agree, clear a row.
WITH opinions AS (
    SELECT
        workload, item, name,
        any_value(interaction_id) AS interaction_id,
        -- The pair in one order, whoever saw it in which.
        any_value(
            CASE WHEN interaction_id IS NULL THEN list_sort([pair_ids ->> 0, pair_ids ->> 1]) END
        ) AS pair_ids,
        list({
            'rater': coalesce(source_id, ''),
            'answer': answer,
            'round': round,
            'guideline': guideline,
            'rationale': rationale,
            'created_at': created_at
        } ORDER BY coalesce(source_id, ''), created_at) AS opinions
    FROM judgements
    WHERE tier <= 2
    GROUP BY workload, item, name
)
SELECT
    workload,
    item,
    is_pair,
    interaction_id,
    pair_ids,
    name,
    raters,
    agreement,
    spoken IS NOT NULL AS has_majority,
    opinions,
    first_at,
    last_at
FROM verdicts
JOIN opinions USING (workload, item, name)
WHERE (label_source = 'expert' AND agreement < 1) OR (label_source = 'adjudicated' AND spoken IS NULL)
ORDER BY has_majority, agreement, first_at, item, name
