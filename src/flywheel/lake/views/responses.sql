-- Every interaction with its resolved labels: one row for each label, one with NULLs where there is none.
SELECT interactions.*, labels.* EXCLUDE (workload, interaction_id)
FROM interactions
LEFT JOIN labels USING (workload, interaction_id)
