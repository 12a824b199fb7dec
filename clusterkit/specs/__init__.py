"""What a user asks for: frozen values that check themselves and round-trip through JSON, TOML and YAML."""
