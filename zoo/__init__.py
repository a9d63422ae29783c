"""zoo: a Lightning model zoo for MUGE, the Chinese multimodal e-commerce benchmark."""
