"""Paths that may be local files, web addresses or `detectron2://` names of public weights."""

from iopath.common.file_io import HTTPURLHandler, OneDrivePathHandler, PathHandler
from iopath.common.file_io import PathManager as PathManagerBase

__all__ = ["PathManager", "PathHandler"]

PathManager = PathManagerBase()


class RemoteHandler(PathHandler):
    """Paths that start with PREFIX stand for files of the web, downloaded once and cached."""

    def _url(self, name):
        """The address of the file that is called PREFIX + `name`."""
        raise NotImplementedError

    def _get_supported_prefixes(self):
        return [self.PREFIX]

    def _get_local_path(self, path, **kwargs):
        return PathManager.get_local_path(self._url(path.removeprefix(self.PREFIX)), **kwargs)

    def _open(self, path, mode="r", **kwargs):
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


class Detectron2Handler(RemoteHandler):
    """`detectron2://x`: the file x of the public detectron2 host."""

    PREFIX = "detectron2://"
    S3_DETECTRON2_PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"

    def _url(self, name):
        return self.S3_DETECTRON2_PREFIX + name


for _handler in (HTTPURLHandler(), OneDrivePathHandler(), Detectron2Handler()):
    PathManager.register_handler(_handler)
