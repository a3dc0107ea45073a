"""Runs other people's tool classes for the plugin `tool-import`, in the machine that holds them.

Not the judge: it lists tasks, opens one, and plays calls; the plugin compares. Nothing is kept between two runs: a run gets all calls
of the episode so far and makes them again, so that no state can be lost, or be left over.

    driver.py REQUEST ANSWER

REQUEST and ANSWER are JSON files; the answer is {"ok": ...} or {"error": "..."}.
"""

import importlib
import json
import sys

import image

# The plugin can read 1 MiB of a file; an answer that is larger becomes an error that says so.
MOST_BYTES = 1_000_000


def answer(request):
    """What a request asks for."""
    # Behind the standard library, so that no file of the image takes a module's place.
    sys.path.extend(["/work/site", "/work"])
    source = importlib.import_module({"bfcl": "bfcl", "tau2": "tau2_tasks"}[request["from"]])
    if request["do"] == "list":
        return source.tasks()
    if request["do"] == "open":
        return source.opened(request["task"])
    results, states = image.play(source.Game(json.loads(request["setup"])), request["turns"])
    made = [result for turn in results for result in turn]
    return {"results": made[request["known"]:], "state": states[-1]}


def main():
    """Answers one request."""
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    # What the tools print is nobody's.
    sys.stdout = sys.stderr
    try:
        said = {"ok": answer(request)}
    except image.Trouble as trouble:
        said = {"error": str(trouble)[:2000]}
    except Exception as error:
        said = {"error": f"the image is of another form than is known: {type(error).__name__}: {error}"[:2000]}
    said = json.dumps(said, ensure_ascii=False).encode("utf-8", "replace")
    if len(said) > MOST_BYTES:
        said = json.dumps({"error": f"this takes {len(said)} bytes, and {MOST_BYTES} can be read"}).encode()
    with open(sys.argv[2], "wb") as file:
        file.write(said)


if __name__ == "__main__":
    main()
