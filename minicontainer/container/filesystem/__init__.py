"""What a container sees as files: /dev, /proc, /sys, /etc, and its root looked at before it is entered."""
