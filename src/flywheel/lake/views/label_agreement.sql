-- How far each two raters agree on the questions both answered. `kappa` (Cohen 1960) takes out the
-- agreement chance would give: (agreement - expected) / (1 - expected), NULL when chance gives all.
-- Judges are compared whether they are qualified or not: that is how one tells.
WITH answers AS (
    SELECT
        workload,
        name,
        item,
        answer,
        concat(
            ['adjudicated', 'expert', 'judge', 'end_user', 'code'][tier], ':', source_id
        ) AS rater
    FROM submissions
    QUALIFY row_number() OVER (
        PARTITION BY workload, item, name, tier, coalesce(source_id, '')
        ORDER BY created_at DESC, assessment_id DESC
    ) = 1
),
both_answered AS (
    SELECT
        a.workload, a.name, a.rater AS rater_a, b.rater AS rater_b,
        a.answer AS answer_a, b.answer AS answer_b
    FROM answers AS a
    JOIN answers AS b
        ON a.workload = b.workload AND a.name = b.name AND a.item = b.item AND a.rater < b.rater
),
observed AS (
    SELECT
        workload, name, rater_a, rater_b,
        count(*) AS items,
        avg((answer_a = answer_b)::INTEGER) AS agreement
    FROM both_answered
    GROUP BY ALL
),
shares_a AS (
    SELECT workload, name, rater_a, rater_b, answer_a AS answer, count(*) AS n
    FROM both_answered
    GROUP BY ALL
),
shares_b AS (
    SELECT workload, name, rater_a, rater_b, answer_b AS answer, count(*) AS n
    FROM both_answered
    GROUP BY ALL
),
chance AS (
    SELECT workload, name, rater_a, rater_b, sum(a.n * b.n) AS matches
    FROM shares_a AS a
    JOIN shares_b AS b USING (workload, name, rater_a, rater_b, answer)
    GROUP BY ALL
)
SELECT
    workload,
    name,
    rater_a,
    rater_b,
    items,
    agreement,
    coalesce(matches, 0) / (items * items) AS expected,
    (agreement - coalesce(matches, 0) / (items * items))
        / nullif(1 - coalesce(matches, 0) / (items * items), 0) AS kappa
FROM observed
LEFT JOIN chance USING (workload, name, rater_a, rater_b)
