"""From a trained generator to pictures: pipeline, backends, files of many samples, walks in style space."""
