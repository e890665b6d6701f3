"""`catalog://ImageNetPretrained/…`: short names of public ImageNet weights."""

from ..utils.file_io import PathManager, RemoteHandler


class ModelCatalog:
    """Where the public weights lie. Nothing is downloaded before a file is asked for."""

    S3_C2_DETECTRON_PREFIX = "https://dl.fbaipublicfiles.com/detectron"
    C2_IMAGENET_MODELS = {
        "MSRA/R-50": "ImageNetPretrained/MSRA/R-50.pkl",
        "MSRA/R-101": "ImageNetPretrained/MSRA/R-101.pkl",
        "FAIR/R-50-GN": "ImageNetPretrained/47261647/R-50-GN.pkl",
        "FAIR/R-101-GN": "ImageNetPretrained/47592356/R-101-GN.pkl",
        "FAIR/X-101-32x8d": "ImageNetPretrained/20171220/X-101-32x8d.pkl",
        "FAIR/X-101-64x4d": "ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl",
        "FAIR/X-152-32x8d-IN5k": "ImageNetPretrained/25093814/X-152-32x8d-IN5k.pkl",
    }

    @staticmethod
    def get(name):
        """The web address of `ImageNetPretrained/<group>/<model>`."""
        models = ModelCatalog.C2_IMAGENET_MODELS
        family, _, model = name.partition("/")
        if family != "ImageNetPretrained" or model not in models:
            names = ", ".join(f"catalog://ImageNetPretrained/{known}" for known in models)
            raise KeyError(f"catalog://{name} is not in the catalog of weights; it has {names}")
        return f"{ModelCatalog.S3_C2_DETECTRON_PREFIX}/{models[model]}"


class ModelCatalogHandler(RemoteHandler):
    """Lets PathManager read catalog:// names."""

    PREFIX = "catalog://"

    def _url(self, name):
        return ModelCatalog.get(name)


PathManager.register_handler(ModelCatalogHandler())
