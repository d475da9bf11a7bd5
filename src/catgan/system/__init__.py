"""What a program needs of its machine: devices, processes, files, locks, progress. Knows no GAN."""
