"""An application that never flushes: it calls, leaves a stream open or forks, and ends.

python -m tests.capture.sdk_process URL SPOOL exit|fork
"""

import os
import sys
from pathlib import Path

from openai import OpenAI

from flywheel.capture import instrument


def main() -> None:
    url, spool, how = sys.argv[1:]
    client = OpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0)
    instrument(client, workload="triage", spool=Path(spool))

    def ask(content: str) -> None:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])

    ask("before")
    if how == "fork":
        child = os.fork()
        if child == 0:
            client.with_options()  # the parent's connections stay the parent's
            client._client = OpenAI(base_url=f"{url}/v1", api_key="sk")._client
            ask("child")
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        ask("parent")
        return
    globals()["stream"] = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "open"}], stream=True
    )
    next(globals()["stream"])


if __name__ == "__main__":
    main()
