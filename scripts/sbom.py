#!/usr/bin/env python3
"""
Write a software bill of materials (CycloneDX) and the licences of everything in .venv.

Writes DIR/sbom.cdx.json and DIR/licences.csv, by cyclonedx-bom and pip-licenses in an environment
of their own. --audit also asks the advisory database about each locked version (pip-audit), and
ends with status 1 if one is known to be vulnerable.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / '.venv' / 'bin' / 'python'
LOCK = ROOT / 'requirements.lock'
TOOLS = ('cyclonedx-bom>=7,<8', 'pip-licenses>=5,<6', 'pip-audit>=2.9,<3')


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0], epilog='example: scripts/sbom.py --out sbom'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write')
    parser.add_argument(
        '--audit', action='store_true', help='ask the advisory database (needs the internet)'
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse(argv)
    if not PYTHON.is_file():
        print('sbom: error: no .venv. Run scripts/setup first.', file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        tools = Path(folder) / 'bin'
        subprocess.run([tools / 'pip', 'install', '--quiet', *TOOLS], check=True)
        bill, licences = args.out / 'sbom.cdx.json', args.out / 'licences.csv'
        subprocess.run(
            [tools / 'cyclonedx-py', 'environment', PYTHON, '--output-file', bill], check=True
        )
        subprocess.run(
            [
                tools / 'pip-licenses',
                f'--python={PYTHON}',
                '--format=csv',
                '--with-urls',
                f'--output-file={licences}',
            ],
            check=True,
        )
        print(bill, licences, sep='\n')
        if args.audit:
            audit = [tools / 'pip-audit', '--requirement', LOCK, '--disable-pip']
            return subprocess.run(audit, check=False).returncode
    return 0


if __name__ == '__main__':
    sys.exit(main())
