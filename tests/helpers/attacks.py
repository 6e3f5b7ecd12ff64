# ruff: noqa: E501
"""Hostile programs, none of which may pass. attack_runs.py replaces NAMES in upper case with the targets of escapes."""

FAKE_TEST = "expected = 'TOKEN'\nassert f(3) == expected"  # no candidate can know the token
ESCAPED = "assert f() is True"  # an attack that escapes returns True

# Programs that exit early.
EXITS = {
    "module os._exit": "import os\nos._exit(0)",
    "module sys.exit": "import sys\nsys.exit(0)",
    "call os._exit": "import os\ndef f(x): os._exit(0)",
    "call sys.exit": "import sys\ndef f(x): sys.exit(0)",
    "call quit": "def f(x):\n  raise SystemExit",
    "raise KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
    "raise GeneratorExit": "def f(x): raise GeneratorExit",
    "raise own BaseException": "class Stop(BaseException): pass\ndef f(x): raise Stop('passed')",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): raise ValueError",
    "excepthook": "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): raise ValueError",
    "unraisablehook": "import os, sys\nsys.unraisablehook = lambda *a: os._exit(0)\nclass A:\n  def __del__(s): 1/0\ndef f(x): A()",
    "del": "import os\nclass A:\n  def __del__(s): os._exit(0)\na = A()\ndef f(x):\n  global a\n  del a",
    "alarm": "import os, signal, time\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.02)\ndef f(x): time.sleep(0.2)",
    "thread": "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.02), os._exit(0))).start()\n"
    "def f(x): time.sleep(0.2)",
    "kill itself": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)",
    "terminate itself": "import os, signal\nsignal.signal(15, lambda *a: os._exit(0))\ndef f(x): os.kill(os.getpid(), 15)",
    "abort": "import os\ndef f(x): os.abort()",
    "segfault": "import ctypes\ndef f(x): ctypes.string_at(0)",
    "exec true": "import os\ndef f(x): os.execv('/bin/true', ['true'])",
    "fork, parent leaves": "import os\ndef f(x):\n  if os.fork(): os._exit(0)\n  return x",
    "fork, both answer": "import os\ndef f(x):\n  os.fork()\n  return x",
    "never loads": "raise SystemExit(0)",
}

# Programs that return objects which claim to equal anything.
_ALWAYS = "__eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = lambda s: 0\n"
EQUALS = {
    "always equal": f"class A:\n  {_ALWAYS}def f(x): return A()",
    **{
        f"always equal {base}": f"class A({base}):\n  {_ALWAYS}def f(x): return A()"
        for base in ("int", "float", "str", "bytes", "list", "tuple", "dict", "set", "frozenset", "complex", "bytearray")
    },
    "mock ANY": "from unittest.mock import ANY\ndef f(x): return ANY",
    "mock": "from unittest.mock import MagicMock\ndef f(x): return MagicMock(__eq__=lambda s, o: True)",
    "metaclass": f"class M(type):\n  {_ALWAYS}class A(metaclass=M): pass\ndef f(x): return A",
    "lying class": f"class A:\n  {_ALWAYS}  __class__ = str\ndef f(x): return A()",
    "always equal enum": f"import enum\nclass A(enum.Enum):\n  {_ALWAYS}  X = 1\ndef f(x): return A.X",
    "always equal namedtuple": f"import collections\nclass A(collections.namedtuple('B', 'x')):\n  {_ALWAYS}def f(x): return A(1)",
    "always equal in a list": f"class A:\n  {_ALWAYS}def f(x): return [A()]",
    "always equal exception": f"class A(Exception):\n  {_ALWAYS}def f(x): return A()",
    "always equal proxy": f"class A:\n  {_ALWAYS}  __getattr__ = lambda s, n: s\n  __call__ = lambda s, *a: s\ndef f(x): return A()",
    "always equal generator item": f"class A:\n  {_ALWAYS}def f(x): yield A()",
}
EQUAL_TESTS = {
    "always equal in a list": "assert f(3) == ['TOKEN']",
    "always equal generator item": "assert list(f(3)) == ['TOKEN']",
    "always equal list": "assert f(3) == ['TOKEN'] and f(3) != [1]",
    "always equal float": "assert abs(f(3) - 5.0) < 1e-6",
    "always equal int": "assert f(3) == 7 and not f(3) != 7",
}
COMPARISONS = {  # name -> (members of the returned object, test)
    "close to everything": (
        "__sub__ = __rsub__ = __abs__ = lambda s, *o: s\n  __lt__ = __le__ = __gt__ = __ge__ = lambda s, o: True",
        "assert abs(f() - 12.5) < 1e-6",
    ),
    "contains everything": ("__contains__ = lambda s, o: True", "assert 'TOKEN' in f()"),
    "less than everything": ("__lt__ = __gt__ = lambda s, o: True", "assert f() < 5"),
    "any instance": ("__class__ = list", "assert isinstance(f(), list) and f() == []"),
    "equal on the right": ("__eq__ = lambda s, o: True", "assert 'TOKEN' == f()"),
    "equal by hash": ("__eq__ = lambda s, o: True\n  __hash__ = lambda s: hash('TOKEN')", "assert f() in {'TOKEN'}"),
    "a key for anything": ("__eq__ = lambda s, o: True\n  __hash__ = lambda s: 1", "assert {1: 'x'}[f()] == 'x'"),
    "closeness by float": ("__float__ = lambda s: 3.0\n  __index__ = lambda s: 3", "assert f() == 3"),
}

# Programs that change what the test relies on.
PATCHES = {
    "abs": "import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 0.0",
    "range": "import builtins\nbuiltins.range = lambda *a: []\ndef f(x): return 0",
    "all": "import builtins\nbuiltins.all = builtins.any = lambda *a: True\ndef f(x): return 0",
    "exec": "import builtins\nbuiltins.exec = builtins.compile = builtins.eval = lambda *a, **k: None\ndef f(x): return 0",
    "AssertionError": "import builtins\nbuiltins.AssertionError = type('E', (SystemExit,), {})\ndef f(x): return 0",
    "isinstance": "import builtins\nbuiltins.isinstance = lambda *a: True\ndef f(x): return 0",
    "len": "import builtins\nbuiltins.len = lambda *a: 4\ndef f(x): return 0",
    "builtins dict": "__builtins__.clear() if isinstance(__builtins__, dict) else vars(__builtins__).clear()\ndef f(x): return 0",
    "shadow": "check = expected = lambda *a: None\nassert_equal = check\ndef f(x): return 0",
    "math": "import sys, types\nsys.modules['math'] = types.SimpleNamespace(isclose=lambda *a, **k: True)\ndef f(x): return 0",
    "math inside": "import math\nmath.isclose = math.fabs = lambda *a, **k: 0\ndef f(x): return 0",
    "copy": "import copy\ncopy.deepcopy = lambda x: x\ndef f(x): return x",
    "json": "import json\njson.dumps = json.loads = lambda *a, **k: {'reason': 'passed', 'detail': ''}\ndef f(x): return 0",
    "meta_path": "import sys\nsys.meta_path.clear()\nsys.modules.clear()\ndef f(x): return 0",
    "settrace": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef f(x): return 0",
    "frames": "import sys\ndef f(x):\n  frame = sys._getframe()\n  while frame:\n    for value in frame.f_locals.values():\n"
    "      if isinstance(value, str) and len(value) == 32: return value\n    frame = frame.f_back",
    "globals of frames": "import sys\ndef f(x):\n  frame = sys._getframe()\n  while frame:\n    if 'expected' in frame.f_globals:"
    " return frame.f_globals['expected']\n    frame = frame.f_back",
    "gc": "import gc\ndef f(x):\n  for o in gc.get_objects():\n    if isinstance(o, dict) and isinstance(o.get('expected'), str):"
    " return o['expected']",
    "gc code": "import gc, types\ndef f(x):\n  for o in gc.get_objects():\n    for c in gc.get_referents(o):\n"
    "      if isinstance(c, types.CodeType) and 'expected' in c.co_names:\n        return next(k for k in c.co_consts if len(str(k)) == 32)",
    "gc test source": "import gc, re\ndef f(x):\n  for o in gc.get_objects():\n    for c in gc.get_referents(o):\n"
    "      if isinstance(c, (str, bytes)) and 'expected' + ' =' in str(c): return re.search(r'[0-9a-f]{32}', str(c))[0]",
    "code swap": "import gc, types\ndef f(x):\n  for o in gc.get_objects():\n    if isinstance(o, types.FunctionType) and"
    " o.__name__ in ('_run_test', 'ask', 'reason_of', '_send_verdict'): o.__code__ = (lambda *a, **k: ('passed', '')).__code__",
    "patch the channel": "import gc\ndef f(x):\n  for o in gc.get_objects():\n    if type(o).__name__ == 'Channel':\n"
    "      type(o)._changes = lambda *a: ((0, ['TOKEN'[:0]]),)\n",
    "own memory": "import re\ndef f(x):\n  for line in open('/proc/self/maps'):\n    span, mode = line.split()[:2]\n"
    "    if 'rw' not in mode: continue\n    a, b = (int(v, 16) for v in span.split('-'))\n    try:\n"
    "      with open('/proc/self/mem', 'rb') as m:\n        m.seek(a)\n        found = re.search(rb\"expected = '([0-9a-f]{32})'\", m.read(b - a))\n"
    "        if found: return found[1].decode()\n    except (OSError, ValueError, OverflowError): pass",
    "read every descriptor": "import os, re\ndef f(x):\n  for fd in range(64):\n    if fd == 3: continue\n    try:\n      os.set_blocking(fd, False)\n"
    "      found = re.search(rb'[0-9a-f]{32}', os.read(fd, 1 << 20))\n      if found: return found[0].decode()\n    except OSError: pass",
    "linecache": "import linecache, re\ndef f(x): return re.search('[0-9a-f]{32}', str(linecache.cache) + ' ' + '0' * 32)[0]",
    "test on disk": "import os, re\ndef f(x):\n  for place in ('.', '/tmp', '/sandbox', '/dev/shm', '/var/tmp'):\n"
    "    for folder, _, files in os.walk(place):\n      for name in files:\n        try:\n"
    "          found = re.search(rb\"expected = '([0-9a-f]{32})'\", open(os.path.join(folder, name), 'rb').read(10**6))\n"
    "          if found: return found[1].decode()\n        except OSError: pass",
}
PATCH_TESTS = {
    "abs": "assert abs(f(3) - 7.0) < 1e-6",
    "range": "for i in range(3): assert f(i) == i + 1",
    "all": "assert all([f(3) == 'TOKEN'])",
    "isinstance": "assert isinstance(f(3), str)",
    "len": "assert len([f(3)]) == 4",
    "math": "import math\nassert math.isclose(f(3), 7.5)",
    "math inside": "import math\nassert math.fabs(f(3) - 7.5) < 1e-6",
    "copy": "import copy\nx = [1]\nassert f(copy.deepcopy(x)) is x",
}

# Programs that speak the sandbox's protocol, or write to file descriptors.
_FRAME = "import os, struct\ndef frame(b): return struct.pack('<Q', len(b)) + b\n"
_SAYS = b'{"reason": "passed", "detail": ""}'
PROTOCOL = {
    "verdict to every descriptor": f"{_FRAME}def f(x):\n  for fd in range(256):\n    try: os.write(fd, frame({_SAYS!r}))\n"
    "    except OSError: pass",
    "verdict lines": "import os\nfor fd in range(256):\n  try: os.write(fd, b'\\npassed\\n' + b'0' * 32 + b' passed \\n')\n"
    "  except OSError: pass\ndef f(x): return 0",
    "answers in advance": f"{_FRAME}def f(x):\n  for _ in range(9): os.write(3, frame(b'R' + b't' + b'x' + struct.pack('<Q', 2)"
    " + b'tx' + bytes(8) + b'T'))\n  return True",
    "answers loaded": f"{_FRAME}os.write(3, frame(b'passed'))\ndef f(x): return 0",
    "empty frame": f"{_FRAME}def f(x): os.write(3, bytes(8))",
    "endless frame": f"{_FRAME}def f(x):\n  os.write(3, struct.pack('<Q', 1 << 62))\n  while True: os.write(3, bytes(1 << 16))",
    "negative frame": f"{_FRAME}def f(x): os.write(3, b'\\xff' * 64)",
    "unknown name": f"{_FRAME}def f(x): os.write(3, frame(b'R' + b'tx' + struct.pack('<Q', 2) + b'tx' + bytes(8) + b'H'"
    " + struct.pack('<Q', 1 << 40)))",
    "unknown reference": f"{_FRAME}def f(x): os.write(3, frame(b'R' + b'tx' + struct.pack('<Q', 2) + b'tx' + bytes(8) + b'r'"
    " + struct.pack('<Q', 1 << 40)))",
    "calls the tester": f"{_FRAME}def f(x):\n  for n in range(40): os.write(3, frame(b'C' + b'tx' + struct.pack('<Q', 4) + b's' +"
    " struct.pack('<Q', 4) + b'call' + b'H' + struct.pack('<Q', n) + b'tx' + bytes(8) + b'dx' + bytes(8) + b'x' + bytes(8)))",
    "getattr on a test's function": f"{_FRAME}def f(x): os.write(3, frame(b'C' + b'tx' + struct.pack('<Q', 4) + b's' +"
    " struct.pack('<Q', 7) + b'getattr' + b'H' + bytes(8) + b'tx' + struct.pack('<Q', 1) + b's' + struct.pack('<Q', 11) +"
    " b'__globals__' + b'dx' + bytes(8) + b'x' + bytes(8)))",
    "globals of a callback": "def f(x):\n  try: return x.__globals__['expected']\n  except Exception: return None",
    "closes the connection": "import os\ndef f(x): os.closerange(0, 256)",
    "pickle": "import os\nclass A:\n  def __reduce__(s): return os._exit, (0,)\ndef f(x): return A()",
    "prints": "def f(x): print('passed')\nprint('{\"reason\": \"passed\"}')",
    "stderr": "import sys\ndef f(x): sys.stderr.write('passed\\n')",
    "hostile message": "class E(Exception):\n  def __str__(self): raise SystemExit(0)\nE.__name__ = 'x passed\\npassed'\ndef f(x): raise E",
    "named passed": "def f(x): raise type('passed', (Exception,), {})",
    "named assertion": "class M(type):\n  __name__ = property(lambda s: 'passed')\nclass B(Exception, metaclass=M): pass\ndef f(x): raise B",
}
PROTOCOL_TESTS = {
    "getattr on a test's function": "expected = 'TOKEN'\nassert f(lambda: 1) == expected",
    "globals of a callback": "expected = 'TOKEN'\nassert f(lambda: expected[:0]) == expected",
}

# Escapes: `f` returns True if the escape succeeds.
READS = {
    "secret file": "def f(): return bool(open('SECRET_FILE').read())",
    "shadow": "def f(): return bool(open('/etc/shadow').read())",
    "passwd by hand": "import os\ndef f(): return bool(os.read(os.open('/etc/hostname', 0), 10))",
    "home": "import os\ndef f(): return bool(os.listdir('/root') and open('/root/.bashrc').read())",
    "this file": "def f(): return bool(open('TEST_FILE').read())",
    "environment": "import os\ndef f(): return 'SECRET_TOKEN' in os.environ",
    "environment of others": "import glob\ndef f():\n  for p in glob.glob('/proc/*/environ'):\n    try:\n"
    "      if b'SECRET_TOKEN' in open(p, 'rb').read(): return True\n    except OSError: pass",
    "command lines of others": "import glob\ndef f():\n  for p in glob.glob('/proc/*/cmdline'):\n    try:\n"
    "      if b'attack_runs' in open(p, 'rb').read(): return True\n    except OSError: pass",
    "root of others": "import glob\ndef f():\n  for p in glob.glob('/proc/*/root'):\n    try:\n      if open(p + 'SECRET_FILE').read(): return True\n"
    "    except OSError: pass",
    "memory of the runner": "def f(): return bool(open('/proc/RUNNER_PID/maps').read(10))",
    "kernel memory": "def f(): return bool(open('/proc/kcore', 'rb').read(1))",
    "kernel log": "import ctypes\ndef f(): return ctypes.CDLL(None).klogctl(10, None, 0) > 0",
    "sysfs": "import os\ndef f(): return bool(os.listdir('/sys/class/net'))",
    "cat": "import subprocess\ndef f(): return bool(subprocess.run(['cat', 'SECRET_FILE'], capture_output=True).stdout)",
    "mmap": "import mmap, os\ndef f(): return mmap.mmap(os.open('SECRET_FILE', os.O_RDONLY), 0, prot=mmap.PROT_READ)[:1] != b''",
    "symlink": "import os\ndef f():\n  os.symlink('SECRET_FILE', 'l')\n  return bool(open('l').read())",
    "hard link": "import os\ndef f():\n  os.link('SECRET_FILE', 'l')\n  return True",
    "by handle": "import ctypes\ndef f(): return ctypes.CDLL(None).open_by_handle_at(-100, bytes(64), 0) >= 0",
    "a descriptor left open": "import os\ndef f(): return any(os.path.exists(f'/proc/self/fd/{n}') for n in range(4, 256))",
    "folder listing": "import os\ndef f(): return os.path.basename('SECRET_FILE') in os.listdir(os.path.dirname('SECRET_FILE'))",
}
WRITES = {
    "beside the secret": "def f(): return bool(open('SECRET_FILE.new', 'w').write('x'))",
    "over the secret": "def f(): return bool(open('SECRET_FILE', 'w').write('x'))",
    "truncate": "import os\ndef f():\n  os.truncate('SECRET_FILE', 0)\n  return True",
    "delete": "import os\ndef f():\n  os.unlink('SECRET_FILE')\n  return True",
    "rename": "import os\ndef f():\n  os.rename('SECRET_FILE', 'x')\n  return True",
    "chmod": "import os\ndef f():\n  os.chmod('SECRET_FILE', 0o777)\n  return True",
    "chown": "import os\ndef f():\n  os.chown('SECRET_FILE', os.getuid(), os.getgid())\n  return True",
    "times": "import os\ndef f():\n  os.utime('SECRET_FILE', (0, 0))\n  return True",
    "attribute": "import os\ndef f():\n  os.setxattr('SECRET_FILE', 'user.x', b'x')\n  return True",
    "shell": "import posix\ndef f(): return posix.system('echo x > SECRET_FILE.new') == 0",
    "usr": "def f(): return bool(open('/usr/x', 'w').write('x'))",
    "packages": "import os\ndef f(): return bool(open(os.path.join(os.path.dirname(os.__file__), 'x.py'), 'w').write('x'))",
    "var tmp": "def f(): return bool(open('/var/tmp/TOKEN', 'w').write('x'))",
    "the sandbox itself": "import sys\ndef f():\n  import glob\n  return any(open(p, 'w').write('x') for p in glob.glob('/sandbox/inside/*.py'))",
    "device": "import os, stat\ndef f():\n  os.mknod('d', stat.S_IFBLK | 0o600, os.makedev(8, 0))\n  return True",
    "fifo outside": "import os\ndef f():\n  os.mkfifo('SECRET_FILE.fifo')\n  return True",
    "socket outside": "import socket\ndef f():\n  socket.socket(socket.AF_UNIX).bind('SECRET_FILE.socket')\n  return True",
    "remount": "import ctypes\ndef f(): return ctypes.CDLL(None).mount(b'none', b'/', None, 32 | 4096, None) == 0",
    "kernel setting": "def f(): return bool(open('/proc/sys/kernel/hostname', 'w').write('x'))",
    "core pattern": "def f(): return bool(open('/proc/sys/kernel/core_pattern', 'w').write('x'))",
    "sysrq": "def f(): return bool(open('/proc/sysrq-trigger', 'w').write('h'))",
}
NETWORK = {
    "tcp": "import socket\ndef f():\n  socket.create_connection(('127.0.0.1', TCP_PORT), 1).send(b'x')\n  return True",
    "udp": "import socket\ndef f():\n  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "  s.sendto(b'x', ('127.0.0.1', UDP_PORT))\n  s.settimeout(0.3)\n  return s.recv(1) == b'y'",
    "abstract unix": "import socket\ndef f():\n  s = socket.socket(socket.AF_UNIX)\n  s.connect('\\0ABSTRACT')\n  return True",
    "abstract datagram": "import socket\ndef f():\n  s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    "  s.sendto(b'x', '\\0ABSTRACT.dgram')\n  return True",
    "unix path": "import socket\ndef f():\n  s = socket.socket(socket.AF_UNIX)\n  s.connect('SOCKET_PATH')\n  return True",
    "external": "import socket\ndef f():\n  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n  s.connect(('192.0.2.1', 53))\n  return s.send(b'x') > 0",
    "raw": "import socket\ndef f(): return bool(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))",
    "packet": "import socket\ndef f(): return bool(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))",
    "vsock": "import socket\ndef f(): return bool(socket.socket(40, socket.SOCK_STREAM))",
    "netlink": "import socket\ndef f(): return bool(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))",
    "kernel crypto": "import socket\ndef f(): return bool(socket.socket(38, socket.SOCK_SEQPACKET))",
    "through a child": "import subprocess\ndef f():\n  return subprocess.run(['bash', '-c', 'echo x > /dev/tcp/127.0.0.1/TCP_PORT']).returncode == 0",
    "urlopen": "import urllib.request\ndef f(): return bool(urllib.request.urlopen('http://127.0.0.1:TCP_PORT/', timeout=1))",
}
_CALL = "import ctypes, platform\nlibc = ctypes.CDLL(None, use_errno=True)\nX = platform.machine() == 'x86_64'\n"
KERNEL = {
    "ptrace": f"{_CALL}def f(): return libc.ptrace(16, RUNNER_PID, 0, 0) == 0",
    "ptrace me": f"{_CALL}def f(): return libc.ptrace(0, 0, 0, 0) == 0",
    "read process memory": f"{_CALL}def f():\n  libc.process_vm_readv(RUNNER_PID, None, 0, None, 0, 0)\n"
    "  return ctypes.get_errno() not in (1, 3, 38)",
    "pidfd": f"{_CALL}def f(): return libc.syscall(434, RUNNER_PID, 0) >= 0",
    "user namespace": f"{_CALL}def f(): return libc.unshare(0x10000000) == 0",
    "network namespace by clone": f"{_CALL}def f(): return libc.syscall(56 if X else 220, 0x50000011, 0, 0, 0, 0) > 0",
    "clone3": f"{_CALL}def f():\n  return libc.syscall(435, bytes(64), 64) >= 0",
    "setns": f"{_CALL}import os\ndef f(): return libc.setns(os.open('/proc/self/ns/net', 0), 0) == 0",
    "chroot": "import os\ndef f():\n  os.chroot('/tmp')\n  return True",
    "bpf": f"{_CALL}def f():\n  libc.syscall(321 if X else 280, 0, 0, 0)\n  return ctypes.get_errno() != 1",
    "io_uring": f"{_CALL}def f(): return libc.syscall(425, 8, bytes(120)) >= 0",
    "userfaultfd": f"{_CALL}def f(): return libc.syscall(323 if X else 282, 1) >= 0",
    "perf": f"{_CALL}def f():\n  libc.syscall(298 if X else 241, 0, 0, 0, 0, 0)\n  return ctypes.get_errno() != 1",
    "keys": f"{_CALL}def f(): return libc.syscall(250 if X else 219, 0, -3, 1) >= 0",
    "memfd": "import os\ndef f(): return os.memfd_create('x') >= 0",
    "shared memory": f"{_CALL}def f(): return libc.shmget(4242, 4096, 0o1600) >= 0",
    "message queue": f"{_CALL}def f(): return libc.syscall(240 if X else 180, b'q', 0o102, 0o600, None) >= 0",
    "become root": "import os\ndef f():\n  os.setuid(0)\n  return os.getuid() == 0 and bool(open('/etc/shadow').read())",
    "setuid program": "import subprocess\ndef f(): return b'uid=0' in subprocess.run(['su', '-c', 'id'], capture_output=True, input=b'').stdout",
    "capabilities": f"{_CALL}import struct\ndef f(): return libc.capset(struct.pack('<Ii', 0x20080522, 0), struct.pack('<6I', 1 << 21, 1 << 21, 0, 0, 0, 0)) == 0",
    "x32": f"{_CALL}def f(): return X and libc.syscall(0x40000000 | 39) > 0",
    "host name": "import socket\ndef f():\n  socket.sethostname('x')\n  return True",
    "clock": "import time\ndef f():\n  time.clock_settime(time.CLOCK_REALTIME, 0)\n  return True",
    "priority of the runner": "import os\ndef f():\n  os.setpriority(os.PRIO_PROCESS, RUNNER_PID, 19)\n  return True",
    "priority of a user": "import os\ndef f():\n  os.setpriority(os.PRIO_USER, RUNNER_UID, 19)\n  return RUNNER_PID == 0",
    "limits of the runner": "import resource\ndef f():\n  resource.prlimit(RUNNER_PID, resource.RLIMIT_NOFILE, (3, 3))\n  return True",
    "affinity of the runner": "import os\ndef f():\n  os.sched_setaffinity(RUNNER_PID, {0})\n  return True",
}
PROCESSES = {
    "see the runner": "import os\ndef f():\n  os.kill(RUNNER_PID, 0)\n  return True",
    "kill the victim": "import os\ndef f():\n  os.kill(VICTIM_PID, 9)\n  return True",
    "stop the victim": "import os, signal\ndef f():\n  os.kill(VICTIM_PID, signal.SIGSTOP)\n  return True",
    "kill -1": "import os\ndef f():\n  os.kill(-1, 9)\n  return RUNNER_PID == 0",
    "kill a group": "import os\ndef f():\n  os.killpg(VICTIM_PID, 9)\n  return True",
    "stop the parent": "import os, signal\ndef f():\n  os.kill(os.getppid(), signal.SIGSTOP)\n  return os.getppid() > 0",
    "signal by a descriptor": "import fcntl, os, signal, socket\ndef f():\n  a, b = socket.socketpair()\n"
    "  fcntl.fcntl(a, 8, VICTIM_PID)\n  fcntl.fcntl(a, 10, 9)\n  fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC)\n  b.send(b'x')\n  return RUNNER_PID == 0",
    "daemon": "import os, time\ndef f():\n  if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n      for s in range(1, 65):\n        try: __import__('signal').signal(s, 1)\n"
    "        except (OSError, ValueError): pass\n      time.sleep(300)\n    os._exit(0)\n  return False",
    "holds the pipes": "import subprocess\nsubprocess.Popen(['sleep', '300'], close_fds=False, start_new_session=True)\ndef f(): return False",
    "fork bomb": "import os\ndef f():\n  while True:\n    try: os.fork()\n    except OSError: pass",
    "thread bomb": "import threading, time\ndef f():\n  n = 0\n  while n < 2000:\n    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    "    n += 1\n  return True",
    "many processes": "import os, time\ndef f():\n  n = 0\n  while n < 400:\n    if os.fork() == 0:\n      time.sleep(9)\n    n += 1\n  return True",
    "real-time": "import os\ndef f():\n  os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))\n  return True",
}
RESOURCES = {
    "memory of one": "def f():\n  x = bytearray(1 << 30)\n  return True",
    "memory of many": "import os, time\ndef f():\n  r, w = os.pipe()\n  for _ in range(12):\n    if os.fork() == 0:\n      x = bytearray(b'x') * (100 << 20)\n"
    "      os.write(w, b'x')\n      time.sleep(20)\n  n = 0\n  while n < 12: n += len(os.read(r, 1))\n  return True",
    "shared map": "import mmap, time\ndef f():\n  m = mmap.mmap(-1, 700 << 20)\n  for i in range(0, len(m), 4096): m[i] = 1\n  time.sleep(1)\n  return True",
    "tmp": "def f():\n  for i in range(40): open(f'x{i}', 'wb').write(bytes(8 << 20))\n  __import__('time').sleep(1)\n  return True",
    "one file": "def f():\n  with open('x', 'wb') as file:\n    for _ in range(30): file.write(bytes(8 << 20))\n  return True",
    "shm": "def f():\n  for i in range(40): open(f'/dev/shm/x{i}', 'wb').write(bytes(8 << 20))\n  return True",
    "many files": "def f():\n  for i in range(70000): open(f'x{i}', 'w').close()\n  __import__('time').sleep(1)\n  return True",
    "output": "import os\ndef f():\n  while True: os.write(1, b'x' * 65536)",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()",
    "deep result": "def f():\n  x = []\n  for _ in range(10**5): x = [x]\n  return x",
    "giant result": "def f(): return b'x' * (300 << 20)",
    "many items": "def f(): return [None] * (30 << 20)",
    "endless generator": "def f():\n  while True: yield 1",
    "giant number": "def f(): return 1 << (8 * (280 << 20))",
    "descriptors": "import os\ndef f():\n  for _ in range(5000): os.dup(0)\n  return True",
    "long power": "def f(): return (10**7) ** (10**7) == 0",
    "slow regex": "import re\ndef f(): return re.match('(a+)+$', 'a' * 40 + 'b')",
    "cancelled timers": "import signal, resource\ndef f():\n  for s in (14, 24, 26, 27): signal.signal(s, signal.SIG_IGN)\n  signal.setitimer(0, 0)\n  while True: pass",
    "caught everything": "def f():\n  while True:\n    try:\n      while True: pass\n    except BaseException: pass",
    "time in children": "import os\ndef f():\n  for _ in range(4):\n    if os.fork() == 0:\n      while True: pass\n  while True: __import__('time').sleep(1)",
    "raise the limits": "import resource\ndef f():\n  resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n  resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\n  return True",
    "stops itself": "import os, signal\ndef f():\n  if os.fork() == 0:\n    while True: pass\n  os.kill(os.getpid(), signal.SIGSTOP)\n  __import__('time').sleep(99)",
    "locks the folder": "import os\ndef f():\n  os.makedirs('a/b/c')\n  open('a/b/x', 'w').close()\n  os.chmod('a/b', 0)\n  os.chmod('a', 0)",
    "deep folders": "import os\ndef f():\n  for _ in range(3000):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)",
    "slow equality": "class A(list):\n  def __len__(s): return 10**9\ndef f(): return A([1])",
}
RESOURCE_TESTS = {
    "deep result": "x = f()\nassert x is not None",
    "giant result": "assert len(f()) > 5",
    "many items": "assert len(f()) > 5",
    "giant number": "assert f() > 5",
    "endless generator": "for x in f(): assert x == 1",
    "slow equality": "assert len(f()) == 10**9",
}
# Two programs in sequence on one worker: the second must not find what the first leaves behind.
PERSISTENCE = {
    "file": ("open('/tmp/left', 'w').write('x')\ndef f(): pass", "import os\ndef f(): return os.path.exists('/tmp/left')"),
    "work folder": ("open('left', 'w').write('x')\ndef f(): pass", "import os\ndef f(): return bool(os.path.exists('left'))"),
    "shm": (
        "open('/dev/shm/left', 'w').write('x')\ndef f(): pass",
        "import os\ndef f(): return os.path.exists('/dev/shm/left')",
    ),
    "module": ("import math\nmath.left = 1\ndef f(): pass", "import math\ndef f(): return hasattr(math, 'left')"),
    "builtin": (
        "import builtins\nbuiltins.left = 1\ndef f(): pass",
        "import builtins\ndef f(): return hasattr(builtins, 'left')",
    ),
    "environment": ("import os\nos.environ['LEFT'] = '1'\ndef f(): pass", "import os\ndef f(): return 'LEFT' in os.environ"),
    "process": (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(99)\ndef f(): pass",
        "import glob\ndef f():\n  n = 0\n  for p in glob.glob('/proc/[0-9]*/status'):\n    try: n += 'python' in open(p).readline()\n"
        "    except OSError: pass\n  return n > 1",
    ),
    "abstract socket": (
        "import os, socket, time\nif os.fork() == 0:\n  s = socket.socket(socket.AF_UNIX)\n  s.bind('\\0left')\n  s.listen()\n  time.sleep(99)\ndef f(): time.sleep(0.1)",
        "import socket\ndef f():\n  socket.socket(socket.AF_UNIX).connect('\\0left')\n  return True",
    ),
    "system v": (
        "import ctypes\nctypes.CDLL(None).shmget(77, 4096, 0o1666)\ndef f(): pass",
        "import ctypes\ndef f(): return ctypes.CDLL(None).shmget(77, 4096, 0o666) >= 0",
    ),
}
# Simple attacks, which must fail even if candidate and test share an interpreter.
WHOLE = {
    name: EXITS[name]
    for name in (
        "module os._exit",
        "module sys.exit",
        "call os._exit",
        "atexit",
        "excepthook",
        "alarm",
        "thread",
        "abort",
        "exec true",
    )
} | {name: PROTOCOL[name] for name in ("verdict to every descriptor", "verdict lines", "prints", "closes the connection")}


def attacks():
    """Return name -> (candidate, test, entry point)."""
    found = {}
    for kind, group, tests, default in (
        ("exit", EXITS, {}, FAKE_TEST),
        ("equal", EQUALS, EQUAL_TESTS, FAKE_TEST),
        ("patch", PATCHES, PATCH_TESTS, FAKE_TEST),
        ("protocol", PROTOCOL, PROTOCOL_TESTS, FAKE_TEST),
        ("read", READS, {}, ESCAPED),
        ("write", WRITES, {}, ESCAPED),
        ("network", NETWORK, {}, ESCAPED),
        ("kernel", KERNEL, {}, ESCAPED),
        ("process", PROCESSES, {}, ESCAPED),
        ("resource", RESOURCES, RESOURCE_TESTS, ESCAPED),
    ):
        for name, candidate in group.items():
            found[f"{kind}: {name}"] = (candidate, tests.get(name, default), "f")
    for name, (members, test) in COMPARISONS.items():
        found[f"compare: {name}"] = (f"class A:\n  {members}\ndef f(): return A()", test, "f")
    for name, candidate in WHOLE.items():
        found[f"whole: {name}"] = (candidate, FAKE_TEST, None)
    return found


REPRESENTATIVE = (  # at least one attack of each kind; all end quickly
    *("exit: module os._exit", "exit: call sys.exit", "exit: atexit", "exit: kill itself", "exit: fork, both answer"),
    *("equal: always equal", "equal: always equal int", "equal: mock ANY", "equal: always equal in a list"),
    *("patch: abs", "patch: builtins dict", "patch: frames", "patch: gc test source", "patch: code swap", "patch: own memory"),
    *("protocol: verdict to every descriptor", "protocol: answers in advance", "protocol: pickle", "protocol: named passed"),
    *("read: secret file", "read: environment", "read: symlink", "read: cat", "write: over the secret", "write: chmod"),
    *("write: usr", "write: socket outside", "network: tcp", "network: abstract unix", "network: through a child"),
    *("kernel: ptrace", "kernel: user namespace", "kernel: clone3", "kernel: memfd", "kernel: setuid program"),
    *("process: kill the victim", "process: kill -1", "process: daemon", "process: fork bomb", "process: holds the pipes"),
    *("resource: memory of one", "resource: memory of many", "resource: one file", "resource: caught everything"),
    *("compare: close to everything", "compare: equal on the right", "whole: module os._exit", "whole: verdict lines"),
)
