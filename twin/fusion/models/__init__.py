"""One way to fuse per file, all behind `twin.fusion.models.base.FusionModel`; `registry` names them."""
