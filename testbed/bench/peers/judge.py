"""Has one scanner judge every file of a folder, one JSON line each: its path and
failed, warned, error or silent. Run by the virtual environment of the scanner.

An outcome is what a user of the scanner would be told: failed and warned by its
own severities, error when it says that it could not read or did not scan the
file, and silent when nothing at all is said against it.
"""

import json
import logging
import os
import sys


def picklescan(path):
    from picklescan.scanner import SafetyLevel, scan_file_path

    r = scan_file_path(path)
    if r.issues_count:
        return "failed"
    if r.scan_err or not r.scanned_files:
        return "error"
    return "warned" if any(g.safety == SafetyLevel.Suspicious for g in r.globals) else "silent"


def modelscan(path):
    from modelscan.modelscan import ModelScan

    r = ModelScan().scan(path)
    severities = {i["severity"] for i in r["issues"]}
    if severities & {"CRITICAL", "HIGH"}:
        return "failed"
    if severities:
        return "warned"
    if r["errors"] or not r["summary"]["scanned"]["total_scanned"]:
        return "error"
    return "silent"


def fickling(path):
    import zipfile

    from fickling.analysis import Severity
    from fickling.loader import scan_file, scan_zip_archive

    if zipfile.is_zipfile(path):
        results = scan_zip_archive(path, graceful=True)
        results = results if isinstance(results, list) else [results]
    else:
        results = [scan_file(path, graceful=True)]
    worst = max((r.severity for r in results), default=Severity.LIKELY_SAFE)
    if worst >= Severity.LIKELY_UNSAFE:
        return "failed"
    if any(r.errors for r in results):
        return "error"
    return "silent" if worst == Severity.LIKELY_SAFE else "warned"


def modelaudit(path):
    from modelaudit.core import scan_model_directory_or_file

    r = scan_model_directory_or_file(path)
    severities = {i.severity.value for i in r.issues}
    if "critical" in severities:
        return "failed"
    if "warning" in severities:
        return "warned"
    return "silent" if r.success and r.files_scanned else "error"


def main():
    judge, folder = globals()[sys.argv[1]], sys.argv[2]
    logging.disable(logging.CRITICAL)
    # What a scanner prints by itself is not its outcome.
    out, sys.stdout = sys.stdout, open(os.devnull, "w")
    for root, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(root, name)
            try:
                outcome = judge(path)
            except Exception:  # a scanner that breaks has told its user so
                outcome = "error"
            print(json.dumps({"path": os.path.relpath(path, folder), "outcome": outcome}), file=out, flush=True)


main()
