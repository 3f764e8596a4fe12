"""Parts of architectures: encoders, experts, gates and towers."""
