"""ChemDraw metrics: is the molecule of a drawing script valid, and how like the target's is it (Tanimoto).

VinciCoder's own benchmark; no evaluation code is published. Both published means are given: over all items, failures
counting 0 (OCRVerse, arXiv 2601.21639), and over valid ones only (what PrismaCoder's numbers come to).
"""

import ast
import re
from functools import lru_cache

READERS = ("MolFromSmiles", "loadMolecule", "MolFromSmarts", "loadSmarts", "loadQueryMolecule", "CanonSmiles")


def smiles_of(code: str) -> str | None:
    """The SMILES that a script hands to rdkit or indigo, without running it; None if there is none to be found.

    Strings are followed through assignments, concatenation and f-strings of constants. Where the program does not
    parse, or hands over what it computes, the first string literal next to a reader's name is taken.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is not None:
        known: dict[str, str] = {}
        for node in ast.walk(tree):  # breadth first: a module's own assignments come before what functions do
            if isinstance(node, ast.Assign) and (text := _constant(node.value, known)) is not None:
                known |= {target.id: text for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", None))
                if name in READERS and (text := _constant(node.args[0], known)) is not None:
                    return text.strip() or None
        named = [text for name, text in known.items() if "smi" in name.lower()]
        if named:
            return named[0].strip() or None
    names = "|".join(READERS)
    hit = re.search(rf"(?:{names})\(\s*r?([\"'])(.+?)\1|(?i:\bsmi\w*)\s*=\s*r?([\"'])(.+?)\3", code)
    return (hit[2] or hit[4]).strip() or None if hit else None


def _constant(node: ast.expr, known: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [_constant(node.left, known), _constant(node.right, known)]
        return None if None in parts else "".join(parts)
    if isinstance(node, ast.JoinedStr):
        values = [v.value if isinstance(v, ast.FormattedValue) else v for v in node.values]
        parts = [_constant(value, known) for value in values]
        return None if None in parts else "".join(parts)
    return None


@lru_cache(4096)
def _fingerprint(smiles: str):
    """(canonical SMILES, Morgan fingerprint of radius 2, 2048 bits), or None where rdkit reads no molecule."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem import rdFingerprintGenerator

    RDLogger.DisableLog("rdApp.*")
    if not smiles or len(smiles) > 5000:
        return None
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        return None
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    return Chem.MolToSmiles(molecule), generator.GetFingerprint(molecule)


def is_valid(smiles: str | None) -> bool:
    """Whether rdkit reads a molecule with at least one atom from it."""
    return _fingerprint(smiles or "") is not None


def tanimoto(reference: str | None, answer: str | None) -> float:
    """|A & B| / |A | B| of the Morgan fingerprints of two SMILES, in [0, 1]; 0 if either is invalid."""
    from rdkit import DataStructs

    a, b = _fingerprint(reference or ""), _fingerprint(answer or "")
    if a is None or b is None:
        return 0.0
    return 1.0 if a[0] == b[0] else float(DataStructs.TanimotoSimilarity(a[1], b[1]))


def scores(reference: str, answer: str) -> dict[str, float | None]:
    """Metrics of an answer's script against the reference's; `tanimoto_valid` is None where the answer is invalid."""
    wanted, given = smiles_of(reference), smiles_of(answer)
    similarity = tanimoto(wanted, given)
    valid = is_valid(given)
    same = valid and is_valid(wanted) and _fingerprint(given)[0] == _fingerprint(wanted)[0]
    return {
        "validity": float(valid),
        "tanimoto": similarity,
        "tanimoto_valid": similarity if valid else None,
        "same_molecule": float(same),
    }
