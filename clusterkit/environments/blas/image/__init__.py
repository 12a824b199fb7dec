"""What goes into an image as it is: modules that run under the image's Python (3.9 or later), outside of clusterkit."""
