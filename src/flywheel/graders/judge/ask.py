"""One call to one model: its answer, one repair where that is no verdict, and never a guess."""

from typing import Literal

from flywheel.chat import StructuredChatModel, StructuredCompletion
from flywheel.errors import BadRequestError, VerdictError
from flywheel.graders.judge.judge import Judge, read_verdict, repair_call
from flywheel.graders.judge.task import JudgeCall, JudgeReply

ErrorType = Literal["judge_garbage", "judge_refused"]
MAX_MESSAGE = 500


async def ask(judge: Judge, call: JudgeCall, model: StructuredChatModel) -> JudgeReply:
    """Asks once, and once more where the answer is no verdict.

    What the model or the endpoint did wrong is in the reply: garbage twice, a refusal, a request
    the endpoint does not take. Only what may pass by waiting is raised. A caller that waits and
    tries again should do so inside `model`: a first answer that was paid for is then not asked for
    again when its repair has to wait.

    Raises:
        UpstreamUnavailableError: the endpoint did not answer, or said that it cannot now.
    """
    answers: list[StructuredCompletion] = []
    asked = call
    while True:
        try:
            answer = await model.complete_structured(
                asked.messages,
                model=call.model,
                schema=call.response_schema,
                temperature=call.temperature,
                max_tokens=call.max_tokens,
                timeout_s=judge.section.run.deadline_s,
            )
        except BadRequestError as error:
            return _reply(call, answers, error_type="judge_refused", message=str(error))
        answers.append(answer)
        if answer.refusal is not None or answer.finish_reason == "content_filter":
            why = answer.refusal or "the endpoint's content filter"
            return _reply(call, answers, error_type="judge_refused", message=why)
        try:
            read_verdict(judge, call, answer.text)
        except VerdictError as error:
            if len(answers) > 1:
                return _reply(call, answers, error_type="judge_garbage", message=str(error))
            asked = repair_call(judge, call, answer.text, _problem(call, answer, error))
        else:
            return _reply(call, answers, text=answer.text)


def _problem(call: JudgeCall, answer: StructuredCompletion, error: VerdictError) -> str:
    if answer.finish_reason != "length":
        return error.reason
    return f"{error.reason}; it was cut off at {call.max_tokens} tokens, so be brief"


def _reply(
    call: JudgeCall,
    answers: list[StructuredCompletion],
    *,
    text: str | None = None,
    error_type: ErrorType | None = None,
    message: str | None = None,
) -> JudgeReply:
    return JudgeReply(
        key=call.key,
        text=text,
        error_type=error_type,
        error_message=message[:MAX_MESSAGE] if message is not None else None,
        input_tokens=_total([answer.input_tokens for answer in answers]),
        output_tokens=_total([answer.output_tokens for answer in answers]),
        cached_input_tokens=_total([answer.cached_input_tokens for answer in answers]),
        attempts=max(1, len(answers)),
        repaired=text is not None and len(answers) > 1,
    )


def _total(counts: list[int | None]) -> int | None:
    """NULL where one is not known: half a sum would look like a cheap call."""
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None
