-- Questions on which one rater has said different things: the latest counts, the others are on record.
WITH said AS (
    SELECT
        coalesce(interaction_id, least(pair_ids ->> 0, pair_ids ->> 1) || ' ' || greatest(pair_ids ->> 0, pair_ids ->> 1)) AS item,
        name,
        source_type,
        source_id,
        coalesce(
            correction::VARCHAR,
            -- A over B is the same as B over A with the two exchanged.
            CASE
                WHEN interaction_id IS NULL AND upper(label) = 'A' THEN pair_ids ->> 0
                WHEN interaction_id IS NULL AND upper(label) = 'B' THEN pair_ids ->> 1
                ELSE label
            END,
            value::VARCHAR
        ) AS answer
    FROM assessments
    WHERE workload = $1
        AND status = 'submitted'
        AND coalesce(interaction_id, pair_ids ->> 0) IN (SELECT unnest($2::VARCHAR[]))
        AND coalesce(source_id, '') IN (SELECT unnest($3::VARCHAR[]))
)
SELECT count(*) AS contradictions
FROM (
    SELECT item
    FROM said
    GROUP BY item, name, source_type, source_id
    HAVING count(DISTINCT answer) > 1
)
