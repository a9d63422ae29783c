"""Bad inputs by the thousand: ``python tests/end_to_end/bad_inputs.py --count 10000 --seed 1``.

Valid inputs of ``data check``, ``data import``, ``score`` and ``fit`` are spoiled by mutators, each of which says what
has to come of it (``tests/spoiling``). No input may end in a traceback, hang, be taken where it is wrong or refused
where it is right, lose a file or leave half of one. ``--first NUMBER --count 1`` runs one of them again.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="How many inputs.")
    parser.add_argument("--seed", type=int, default=0, help="Another one draws other inputs.")
    parser.add_argument("--first", type=int, default=0, help="The number of the first input.")
    parser.add_argument("--area", action="append", default=[], help="Only those of this area; may be repeated.")
    parser.add_argument("--only", action="append", default=[], help="Only those of this mutator; may be repeated.")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported
    from spoiling.running import Runner

    began, failures, seconds = time.perf_counter(), [], Counter()
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as folder:
        runner = Runner(Path(folder), options.seed, options.area, options.only)
        for done in range(1, options.count + 1):
            number, start = options.first + done - 1, time.perf_counter()
            failure = runner.run_one(number)
            seconds[runner.area_of(number).name] += time.perf_counter() - start
            if failure:
                failures.append(failure)
                print(f"\n{failure.name}: {failure.what[-1500:]}\n{failure.said}", flush=True)
            if done % 1000 == 0:
                print(f"{done:,} inputs, {len(failures)} failures, {time.perf_counter() - began:.0f} s", flush=True)
    for area in runner.areas:
        mutators = {mutator.name for _, mutator in runner.pairs[area.name]}
        counts = ", ".join(f"{count:,} {what}" for (name, what), count in runner.counts.items() if name == area.name)
        print(
            f"{area.name}: {len(mutators)} mutators of {len(area.bases)} inputs; {counts}; {seconds[area.name]:.0f} s"
        )
    print(f"{options.count:,} inputs, {len(failures)} failures, {time.perf_counter() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
