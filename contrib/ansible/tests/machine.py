"""Ansible's connection to the machine of scripts/machine.sh: its process 1 has the number that MACHINE_INIT says."""

import os
import shlex
import shutil

from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = """
    name: machine
    short_description: enter a machine of namespaces
    description: Runs what it is told in the namespaces of a process, and puts files below its root.
    author: pgporter
    options: {}
"""


class Connection(Local):
    transport = "machine"

    def _inside(self, path):
        return "/proc/%s/root%s" % (os.environ["MACHINE_INIT"], path)

    def exec_command(self, cmd, in_data=None, sudoable=True):
        enter = ["nsenter", "--target", os.environ["MACHINE_INIT"], "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root"]
        clean = ["env", "-i", "--chdir=/root", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", cmd]
        return super().exec_command(shlex.join(enter + clean), in_data=in_data, sudoable=sudoable)

    # Not as for this machine: a path below a root in /proc isn't the one that it resolves to.
    def put_file(self, in_path, out_path):
        shutil.copyfile(in_path, self._inside(out_path))

    def fetch_file(self, in_path, out_path):
        shutil.copyfile(self._inside(in_path), out_path)
