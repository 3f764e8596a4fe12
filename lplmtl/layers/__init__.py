"""Building blocks of architectures: encoders, experts, gates and towers."""
