"""Evaluates selectors as Ansible's json_query does: python3-jmespath over values whose texts, lists and mappings are
Ansible's own classes. Reads a JSON object per line, {"members": [...], "expression": "..."}, and writes one for each:
{"picked": [indices]}, {"null": true}, or {"error": "..."} where the result is no list of members, each at most once."""

import json
import sys
import warnings

import jmespath
import jmespath.functions

warnings.simplefilter("ignore")


class AnsibleUnicode(str):
    pass


class AnsibleSequence(list):
    pass


class AnsibleMapping(dict):
    __hash__ = None


for kind, own in (("string", "AnsibleUnicode"), ("array", "AnsibleSequence"), ("object", "AnsibleMapping")):
    types = jmespath.functions.REVERSE_TYPES_MAP
    types[kind] = types[kind] + (own,)


def as_ansible(value):
    if isinstance(value, str):
        return AnsibleUnicode(value)
    if isinstance(value, list):
        return AnsibleSequence(as_ansible(item) for item in value)
    if isinstance(value, dict):
        return AnsibleMapping((key, as_ansible(item)) for key, item in value.items())
    return value


for line in sys.stdin:
    question = json.loads(line)
    # The list itself comes from a template; only what is in it is Ansible's.
    members = [as_ansible(member) for member in question["members"]]
    places = {id(member): place for place, member in enumerate(members)}
    try:
        result = jmespath.search(question["expression"], members)
    except Exception as error:  # whatever goes wrong, the service is not rendered
        answer = {"error": str(error)}
    else:
        if result is None:
            answer = {"null": True}
        elif not isinstance(result, list) or any(id(item) not in places for item in result):
            answer = {"error": "not a list of members"}
        else:
            picked = [places[id(item)] for item in result]
            answer = {"picked": picked} if len(set(picked)) == len(picked) else {"error": "a member twice"}
    print(json.dumps(answer), flush=False)
