"""Tests of deploy.fit."""
