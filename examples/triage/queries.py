"""Five questions a data scientist would ask of the demo's lake, in SQL."""

QUERIES = (
    (
        "Who answered how often, and how fast?",
        """
select adapter, count(*) as n, round(avg(duration_ms)) as ms
from interactions group by 1 order by min(started_at)
""",
    ),
    (
        "What did each clinician say, and how often did they agree with what was served?",
        """
select source_id as clinician, count(*) as labels,
       count(*) filter (kind = 'correction') as corrected,
       round(avg(case when kind = 'correction' then 0 else 1 end), 2) as agreed
from assessments where source_type = 'human' group by 1 order by 1
""",
    ),
    (
        "Which emergencies did an adapter miss, by everybody's word but the poisoned account's?",
        """
select left(messages ->> '$[1].content', 70) as message,
       response ->> '$.content' as served, source_id as corrected_by
from interactions join assessments using (interaction_id)
where assessments.correction ->> '$.content' like '%emergency%'
  and adapter is not null and source_id <> 'compromised-account'
order by started_at desc limit 5
""",
    ),
    (
        "Which hold-out items did each candidate win or lose against its champion?",
        """
select candidate.model as candidate,
       count(*) filter (candidate_score > champion_score) as won,
       count(*) filter (candidate_score < champion_score) as lost,
       count(*) filter (candidate_score = champion_score) as tied
from (select *, cast(scores ->> '$.correct' as double) as candidate_score
      from evaluations where role = 'candidate') as candidate
join decisions on decisions.candidate_evaluation_id = candidate.evaluation_id
join (select *, cast(scores ->> '$.correct' as double) as champion_score
      from evaluations where role = 'champion') as champion
  on champion.evaluation_id = decisions.champion_evaluation_id
 and champion.item_id = candidate.item_id
group by 1 order by min(candidate.created_at)
""",
    ),
    (
        "How did the alias get where it is?",
        """
select epoch, action, model, previous, actor, strftime(created_at, '%H:%M:%S') as at
from releases order by epoch
""",
    ),
)
