"""Caches and sites in simulation, against the optimum; and where replicas should lie. No part of it touches a cache."""
