from dataclasses import dataclass
@dataclass(frozen=True)
class Culprit:
    node: str
    operator: str
    module: str
    source: str
    eager: str
    difference: float
