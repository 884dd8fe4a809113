"""The reference GAN trainer and its benchmark."""
