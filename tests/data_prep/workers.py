"""Work done in this process, in an order of its own, that can be killed and whose workers can die."""


class Killed(Exception):
    """Stands for kill -9: the work ends after some units."""


class Workers:
    """`units` are done before it is killed; units that `deadly` holds for take their worker down."""

    def __init__(self, out, *, backwards=False, units=10**9, deadly=lambda item: False):
        self.out, self.inputs = out, {}
        self.backwards, self.units, self.deadly = backwards, units, deadly
        self.done = []
        out.mkdir(exist_ok=True, parents=True)

    def progress(self, done, total, unit, **figures):
        """Nobody looks."""

    def map(self, function, items, *, unit, amounts=None, lost=None):
        results = {}
        for index in sorted(range(len(items)), reverse=self.backwards):
            if self.units == 0:
                raise Killed
            self.units -= 1
            self.done.append((unit, items[index]))
            dies = lost is not None and self.deadly(items[index])
            results[index] = (lost if dies else function)(items[index])
            if amounts is not None:
                assert all(value >= 0 for value in amounts(results[index]).values())
        return iter(results[index] for index in range(len(items)))
