"""psserve serves many fine-tunes of one base model for the price of one prefill."""

__version__ = "0.1.0"
