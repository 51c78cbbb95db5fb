"""Documents with parts that a command writes, between <!-- NAME: arguments of the command --> and <!-- end -->."""

import re
import shlex

from utils import InputError


def rewritten(text, name, write):
    """``text`` with every part of a command written again.

    Args:
        name: of the command's markers; those of others stay as they are.
        write: the function from a marker's list of arguments to what stands after it.

    Raises:
        InputError: a marker is not closed; nothing has been written.
    """
    marked = re.compile(rf"(<!-- {name}: ([^\n]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(marked.findall(text)) != text.count(f"<!-- {name}:"):
        raise InputError(f"a <!-- {name}: ... --> marker is not closed by <!-- end -->")
    return marked.sub(lambda match: f"{match[1]}\n{write(shlex.split(match[2]))}\n\n{match[3]}", text)


def table(lines):
    """A Markdown table of texts, the head first; columns are as wide as their widest cell, for who reads the source."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *rows = [
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in lines
    ]
    rule = "|" + "-" * (widths[0] + 2) + "|" + "".join("-" * (width + 1) + ":|" for width in widths[1:])
    return "\n".join([head, rule, *rows])
