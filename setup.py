"""Install the package: colcon and pip both come here."""

from glob import glob

from setuptools import find_packages, setup

NAME = 'mobile_vla_ros'
PYTHONS = ('3.11', '3.12', '3.13', '3.14')
# PyPI has these for x86-64 alone.
ROS = (
    'ros-jazzy-diagnostic-msgs>=5.3.6',
    'ros-jazzy-geometry-msgs>=5.3.6',
    'ros-jazzy-nav-msgs>=5.3.6',
    'ros-jazzy-rclpy>=7.1.6',
    'ros-jazzy-rmw-fastrtps-cpp>=8.4.3',
    'ros-jazzy-sensor-msgs>=5.3.6',
    'ros-jazzy-std-srvs>=5.3.6',
)

setup(
    name=NAME,
    version='0.1.0',
    description='Teach a mobile base to follow an instruction by driving it: record, train, '
    'drive.',
    maintainer='mobile_vla_ros maintainers',
    maintainer_email='maintainers@users.noreply.github.com',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[f'Programming Language :: Python :: {version}' for version in PYTHONS],
    python_requires='>=3.10',  # JetPack 6 (docs/jetson.md); scripts/setup needs PYTHONS
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['py.typed', 'assets/**/*', 'report/static/*', 'report/templates/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        (f'share/{NAME}/launch', sorted(glob('launch/*.launch.py'))),
        (f'share/{NAME}/config', sorted(glob('config/*.yaml') + glob('config/*.xml'))),
    ],
    zip_safe=False,
    install_requires=['setuptools>=65'],  # what runs is in requirements.txt
    extras_require={
        # ROS 2 from PyPI, for machines without one; a sourced ROS 2 needs none of these.
        'ros': [
            'opencv-python-headless>=4.8.0.76',
            *(f'{package}; platform_machine == "x86_64"' for package in ROS),
        ],
        # Other tools' files: LeRobot sets and video (mobile_vla episodes export and import).
        'formats': ['av>=14.2', 'pyarrow>=19.0'],
        'dev': [
            'colcon-common-extensions>=0.3.0',
            'hypothesis>=6.100',
            'mypy>=2.0',
            'pip>=26.1',  # older ones ignore the hashes of constraints (scripts/setup)
            'pytest>=8.2',
            'pytest-timeout>=2.2',
            'ruff>=0.17',
            'types-psutil>=7.0.0.20250218',
            'types-pyyaml>=6.0',
            'types-tqdm>=4.67.0.20241119',
        ],
    },
    entry_points={
        'console_scripts': [
            'guard_node = mobile_vla_ros.nodes.guard_node:main',
            'inference_node = mobile_vla_ros.nodes.inference_node:main',
            'mobile_vla = mobile_vla_ros.cli.main:main',
            'recorder_node = mobile_vla_ros.nodes.recorder_node:main',
            'shadow_node = mobile_vla_ros.nodes.shadow_node:main',
            'sim_node = mobile_vla_ros.nodes.sim_node:main',
            'teleop_node = mobile_vla_ros.nodes.teleop_node:main',
        ],
    },
)
