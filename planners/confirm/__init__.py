"""Each distinct VT once more in the monodomain equation, started from the reduced model's phase."""

from planners.confirm.confirm import Confirmation, ConfirmSettings, confirm, confirm_all

__all__ = ["ConfirmSettings", "Confirmation", "confirm", "confirm_all"]
