"""Which flags and variables each command of a clap program knows, read from its Rust source.

Deployment files name flags; this is what keeps them from naming one that does not exist. It understands the clap that the
command line uses (derived structs and enums, flattened parts, nested commands) and nothing more.
"""

import re
from pathlib import Path

BLOCK = re.compile(r"\b(struct|enum) (\w+)(?:<[^>]*>)? \{\n(.*?)\n\}", re.DOTALL)
ATTRIBUTE = re.compile(r'#\[((?:[^\[\]"]|"(?:[^"\\]|\\.)*"|\[[^\]]*\])*)\]')
FIELD = re.compile(r"(?:pub(?:\(\w+\))? )?(\w+): (.+?),?$", re.MULTILINE)
VARIANT = re.compile(r"^    ([A-Z]\w*)(?:\((.+?)\)|(?: \{)?)(?:,|$)", re.MULTILINE)


def commands(*sources):
    """{command: (flags, variables)} of all `.rs` files given; nested commands are `outer inner`."""
    blocks = {}
    for source in sources:
        text = re.sub(r"^\s*//.*\n", "", Path(source).read_text(), flags=re.MULTILINE)
        for kind, name, body in BLOCK.findall(text):
            blocks[name] = (kind, body)
    return _below("", _fields(blocks["Cli"][1], blocks), blocks)


def _below(command, fields, blocks):
    """The command itself, or the commands nested in it; what the outer one knows, the inner ones know too."""
    flags, variables, nested = fields
    if nested is None:
        return {command: (flags, variables)}
    found = {}
    enum_body = blocks[nested][1]
    for name, tuple_type in VARIANT.findall(ATTRIBUTE.sub("", enum_body)):
        body = blocks[_plain(tuple_type)][1] if tuple_type else _variant_body(name, enum_body)
        inner = f"{command} {_kebab(name)}".strip()
        for path, (more_flags, more_variables) in _below(inner, _fields(body, blocks), blocks).items():
            found[path] = (flags | more_flags, variables | more_variables)
    return found


def _variant_body(name, enum_body):
    match = re.search(rf"^    {name} \{{\n(.*?)\n    \}}", enum_body, re.DOTALL | re.MULTILINE)
    return match[1] if match else ""


def _fields(body, blocks):
    """(flags, variables, enum of nested commands or None)"""
    flags, variables, nested, position, attributes = set(), set(), None, 0, []
    while position < len(body):
        if attribute := ATTRIBUTE.match(body, position):
            attributes.append(attribute[1])
            position = attribute.end()
        elif field := FIELD.match(body, position):
            name, type_name = field.groups()
            text = " ".join(attributes)
            if "command(flatten)" in text:
                more_flags, more_variables, _ = _fields(blocks[_plain(type_name)][1], blocks)
                flags |= more_flags
                variables |= more_variables
            elif "command(subcommand)" in text:
                nested = _plain(type_name)
            elif re.search(r"\blong\b", text):
                long = re.search(r'\blong = "([^"]+)"', text)
                flags.add("--" + (long[1] if long else _kebab(name)))
                if variable := re.search(r'\benv = "([^"]+)"', text):
                    variables.add(variable[1])
            attributes, position = [], field.end()
        else:
            position += 1
    return flags, variables, nested


def _plain(type_name):
    return re.sub(r"^(?:Box|Option)<(.*)>$", r"\1", type_name.strip()).split("::")[-1]


def _kebab(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()
